"""The sections of a study's configuration, one module for each stage."""
