"""For an Airflow that finds plugins in a folder. An installed Taxiway registers itself by its entry point, and a second
registration would mount its pages twice; this file then adds nothing."""

from importlib.metadata import entry_points

if not any(point.name == "taxiway" for point in entry_points(group="airflow.plugins")):
    from taxiway_airflow.plugin import TaxiwayPlugin  # noqa: F401 - Airflow looks for plugin classes in the module
