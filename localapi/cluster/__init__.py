"""Workers on the nodes of a Ray cluster: the gateway process that talks to Ray, and the code that runs on a node."""
