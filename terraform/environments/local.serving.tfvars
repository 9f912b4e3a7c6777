# localaws serves from the archive. It looks for images of its own account only, so any other address will do.
image_uri = "000000000000.dkr.ecr.us-east-1.amazonaws.com/kennel-local-serving@sha256:0000000000000000000000000000000000000000000000000000000000000000"
