"""Events of the engine to the events of the API; pure. docs/http-api.md has the fields."""
