"""What lets people and load balancers see inside: logs, the state that `dump` shows, health, and Events.

* `log`: one event a line; `secrets`: what none of them shows; `recent`: the last ones, for who comes too late.
* `report`, `agent_socket`: what the agent knows, and the socket that it answers on.
* `desired`, `comparison`, `differences`: what `dump` makes of that: what should be beside what is.
* `schema`, `words`: the fields and the words in which all of it is shown.
* `health`, `node_port_health`: what /healthz, /livez and the health check node ports answer.
* `metrics`, `metrics_table`, `service_traffic`: what /metrics answers.
* `http_pages`: what is answered to monitoring; `configuration`: the configuration in effect, as it is shown.
* `http_server`, `http_connection`: how they answer it.
* `events`: what gets an Event; `node_events`: which log lines are told on the own Node.
* `host_firewall`: what of the host's firewall stands in the way, told once.
"""
