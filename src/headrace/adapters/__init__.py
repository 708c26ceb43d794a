"""The dialects: each translates foreign requests into calls of the engine, and its events back."""
