"""OpenAI's Responses: answers made of items, kept on the server if they are wanted again."""
