# localaws on this machine: nothing here costs anything, and everything may go.
cost_centre       = "none"
environment       = "local"
owner             = "me"
region            = "us-east-1"
s3_use_path_style = true
