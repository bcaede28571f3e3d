"""Workers on the nodes of a Ray cluster: the gateway process that talks to Ray, and what runs on a node."""
