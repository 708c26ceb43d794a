"""The SDKs of E2B: what they are run with is in faces.py, what they can do in methods.py."""
