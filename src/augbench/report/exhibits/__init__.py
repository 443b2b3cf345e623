"""What the report shows, by theme: numbers come from the module of the same name in ``report``."""
