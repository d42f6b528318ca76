"""Features that someone has already, brought into a feature store."""
