"""The dialect of E2B: control plane, the agent in a sandbox (envd) and the code interpreter."""
