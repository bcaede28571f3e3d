"""HTTP below the endpoints: the server, who may ask, request bodies, and streams."""
