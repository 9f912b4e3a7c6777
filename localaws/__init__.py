"""AWS on one machine, as far as Kennel needs it; it starts the other packages as processes."""
