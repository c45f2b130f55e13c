"""The world behind the ports: one library each. Imported only where a run is put together."""
