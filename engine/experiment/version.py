"""The version of the schema: what an experiment is written with, and what `migrations` bring older ones up to."""

SCHEMA_VERSION = 2
VERSION = "schema_version"  # its name in what is stored, beside the settings
