"""Asking servers over HTTP: guarded, with a login, no faster than allowed; for sources and storages."""
