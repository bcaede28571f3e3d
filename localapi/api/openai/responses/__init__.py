"""OpenAI's Responses: responses that consist of items, stored on the server for later use."""
