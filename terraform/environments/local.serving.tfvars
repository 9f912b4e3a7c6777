# localaws serves from the archive and pulls no image, so any well-formed address will do.
image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-local-serving@sha256:0000000000000000000000000000000000000000000000000000000000000000"
