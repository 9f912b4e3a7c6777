# localaws serves from the archive, and takes the digest of zeros for that of any image.
image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-local-serving@sha256:0000000000000000000000000000000000000000000000000000000000000000"
