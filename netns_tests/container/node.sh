#!/bin/sh
# A node for one container: a pod 10.244.0.10 that serves HTTP on port 8080, and the network that the agent is to serve.
# Runs in the image, and says "ready" when the pod serves.
set -eu
ip link set lo up
ip netns add pod
ip link add node type veth peer name eth0 netns pod
ip address add 10.244.0.1/24 dev node
ip link set node up
ip -n pod address add 10.244.0.10/24 dev eth0
ip -n pod link set eth0 up
ip -n pod link set lo up
ip -n pod route add default via 10.244.0.1
exec ip netns exec pod python3 -u -c '
import http.server

class Pod(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"pod, asked by {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("10.244.0.10", 8080), Pod)
print("ready")
server.serve_forever()
'
