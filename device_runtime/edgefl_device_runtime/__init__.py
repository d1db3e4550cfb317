"""The part that lives on a device: it trains on local data and takes part in a server's runs."""
