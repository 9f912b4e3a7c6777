provider "aws" {
  region = "us-east-1"
}

variables {
  model = {
    archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz"
    digest      = "1111111111111111111111111111111111111111111111111111111111111111"
    image_uri   = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  }
  name     = "kennel-dev"
  role_arn = "arn:aws:iam::123456789012:role/kennel-dev-serving"
}

run "archives_elsewhere" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    model          = { archive_uri = "/models/model.tar.gz", digest = "1111111111111111111111111111111111111111111111111111111111111111", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
    previous_model = { archive_uri = "model.tar.gz", digest = "0000000000000000000000000000000000000000000000000000000000000000", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }

  expect_failures = [var.model, var.previous_model]
}

run "archive_that_is_no_archive" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    model = { archive_uri = "s3://kennel-dev/models/model.onnx", digest = "1111111111111111111111111111111111111111111111111111111111111111", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }

  expect_failures = [var.model]
}

run "digests_of_another_form" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    model          = { archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz", digest = "111111111111", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
    previous_model = { archive_uri = "s3://kennel-dev/models/000000000000/model.tar.gz", digest = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }

  expect_failures = [var.model, var.previous_model]
}

run "images_by_tag" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    model          = { archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz", digest = "1111111111111111111111111111111111111111111111111111111111111111", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving:latest" }
    previous_model = { archive_uri = "s3://kennel-dev/models/000000000000/model.tar.gz", digest = "0000000000000000000000000000000000000000000000000000000000000000", image_uri = "serving:1" }
    variants       = { main = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "serving:1" } } }
  }

  expect_failures = [var.model, var.previous_model, var.variants]
}

run "no_image" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    model = { archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz", digest = "1111111111111111111111111111111111111111111111111111111111111111", image_uri = "none" }
  }

  expect_failures = [var.model]
}

run "too_much" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    name         = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    data_capture = { bucket_name = "kennel-dev", sampling_percentage = 101 }
    thresholds   = { error_percent = 100 }
    variants     = { a = {}, b = {}, c = {}, d = {}, e = {}, f = {} }
  }

  expect_failures = [var.name, var.data_capture, var.thresholds, var.variants]
}

run "of_another_kind" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    name               = "kennel_dev"
    role_arn           = "arn:aws:iam::123456789012:user/kennel"
    kms_key_arn        = "alias/kennel"
    log_retention_days = 100
    vpc                = { security_group_ids = [], subnet_ids = ["subnet-1"] }
  }

  expect_failures = [var.name, var.role_arn, var.kms_key_arn, var.log_retention_days, var.vpc]
}

run "too_little" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    data_capture = { bucket_name = "kennel-dev", sampling_percentage = 0 }
    vpc          = { security_group_ids = ["sg-1"], subnet_ids = [] }
    variants     = { main = { initial_instance_count = 0 } }
  }

  expect_failures = [var.data_capture, var.vpc, var.variants]
}

run "capture_of_a_fraction" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    data_capture = { bucket_name = "kennel-dev", sampling_percentage = 0.5 }
  }

  expect_failures = [var.data_capture]
}

run "latency_that_nobody_sees" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    thresholds = { latency_p99_ms = 60000 }
  }

  expect_failures = [var.thresholds]
}

run "no_variant" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = {}
  }

  expect_failures = [var.variants]
}

run "variant_name_with_an_underscore" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { all_traffic = {} }
  }

  expect_failures = [var.variants]
}

run "instance_type_of_ec2" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { main = { instance_type = "m5.large" } }
  }

  expect_failures = [var.variants]
}

run "instance_type_without_releases" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { main = { instance_type = "ml.inf1.xlarge" } }
  }

  expect_failures = [var.variants]
}

run "half_an_instance" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { main = { initial_instance_count = 1.5 } }
  }

  expect_failures = [var.variants]
}

run "start_in_less_than_a_minute" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { main = { container_startup_timeout_s = 59 } }
  }

  expect_failures = [var.variants]
}

run "download_in_more_than_an_hour" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { main = { model_download_timeout_s = 3601 } }
  }

  expect_failures = [var.variants]
}

run "weight_of_nine_tenths" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = 0.9 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weight_of_a_tenth" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = 0.1 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weight_of_three_tenths" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = 0.3 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weight_of_25_bits" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = 16777217 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weight_of_25_bits_after_the_point" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = 8388608.25 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weight_of_what_sagemaker_makes_of_nine_tenths" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = 0.8999999762 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weight_of_less_than_nothing" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { a = { weight = -1 }, b = {} }
  }

  expect_failures = [var.variants]
}

run "weights_of_nothing" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = { main = { weight = 0 } }
  }

  expect_failures = [var.variants]
}

run "shadow_of_two_variants" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow   = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
    variants = { a = {}, b = {} }
  }

  expect_failures = [var.shadow]
}

run "shadow_with_the_variants_name" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }, name = "main" }
  }

  expect_failures = [var.shadow]
}

run "shadow_with_a_weight_of_a_tenth" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }, weight = 0.1 }
  }

  expect_failures = [var.shadow]
}

run "shadow_of_more_than_all" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }, weight = 2 }
  }

  expect_failures = [var.shadow]
}

run "shadow_without_instances" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { initial_instance_count = 0, model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
  }

  expect_failures = [var.shadow]
}

run "shadow_on_inf1" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { instance_type = "ml.inf1.xlarge", model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
  }

  expect_failures = [var.shadow]
}

run "shadow_that_starts_in_less_than_a_minute" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { container_startup_timeout_s = 30, model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
  }

  expect_failures = [var.shadow]
}

run "shadow_with_an_image_by_tag" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "serving:1" } }
  }

  expect_failures = [var.shadow]
}

run "shadow_of_what_is_no_archive" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { model = { archive_uri = "s3://kennel-dev/models/model.onnx", digest = "222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
  }

  expect_failures = [var.shadow]
}
