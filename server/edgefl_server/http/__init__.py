"""The protocol over HTTP."""

from edgefl_server.http.app import MAX_MODEL_BYTES, MAX_OUTCOME_BYTES, create_app
from edgefl_server.http.serving import Address, serve

__all__ = ["MAX_MODEL_BYTES", "MAX_OUTCOME_BYTES", "Address", "create_app", "serve"]
