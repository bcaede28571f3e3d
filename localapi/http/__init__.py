"""HTTP below the endpoints: the server, access checks, request bodies, and streams."""
