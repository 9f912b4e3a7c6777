# A small environment for one team.
cost_centre = "research" # yours
environment = "dev"
owner       = "platform" # yours
region      = "us-east-1"
