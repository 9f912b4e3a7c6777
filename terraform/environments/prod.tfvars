# What others depend on.
cost_centre = "product" # yours
environment = "prod"
owner       = "platform" # yours
region      = "us-east-1"
