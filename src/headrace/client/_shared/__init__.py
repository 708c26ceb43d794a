"""What both faces of the SDK share: requests, answers, events, outcomes; no I/O."""
