provider "aws" {
  region            = var.region
  s3_use_path_style = var.s3_use_path_style

  default_tags {
    tags = {
      project     = var.project
      environment = var.environment
      owner       = var.owner
      cost-centre = var.cost_centre
      stack       = "serving"
    }
  }
}
