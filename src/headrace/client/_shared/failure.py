"""What can go wrong below a request, before anybody knows what that means for the request."""


class TransportError(Exception):
    """The connection is of no more use."""


class NotConnectedError(TransportError):
    """There is no connection, so nothing was sent."""


class CutError(TransportError):
    """The connection broke, or what came over it was no HTTP."""


class SilentError(TransportError):
    """Nothing came, or could be sent, in the time that there was."""
