"""HTTP/1.1: connections, pools, messages. Knows nothing of Seamless; runs on any loop."""
