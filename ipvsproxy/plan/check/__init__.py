"""What `ipvsproxy check` says of a node: pure rules, from facts that were read to findings with words.

finding    what a finding is, and what all of them together mean
kernel     the kernel's version and modules, the privilege, the program nft
settings   kernel settings as they are beside those that should be
room       how full the tables of connections are
network    what stands in the way of service traffic: firewalls, ARP, bridges, IPv6 that is switched off
others     who else is there: kube-proxy, another agent, whoever has a port
expectations  what follows from the configuration
agent      the agent's own health
"""
