locals {
  python_image = coalesce(var.python_image, "$PYTHON_IMAGE")

  # The tag covers all that the image is made of, so that a new base image is built too.
  image_tag = "$({ git rev-parse HEAD:inference; echo \"${local.python_image}\"; } | sha256sum | cut -c1-12)"

  upload = join(" ", [
    "aws s3api put-object --region ${data.aws_region.current.id} --bucket ${var.bucket.name} --key ${local.build_source_key}",
    "--body image.zip --query VersionId --output text",
  ])
}

output "build_command" {
  description = "Commands that build the committed state of inference/ and push it, to be run in the repository's root; the next step."
  value = join(" ", [
    "git archive --output image.zip HEAD inference &&",
    "aws codebuild start-build --region ${data.aws_region.current.id} --project-name ${aws_codebuild_project.image.name}",
    # The object's version, so that a build is of the archive that was uploaded for it.
    "--source-version \"$(${local.upload})\"",
    "--environment-variables-override \"name=IMAGE_TAG,value=${local.image_tag}\" \"name=PYTHON_IMAGE,value=${local.python_image}\"",
  ])
}

output "build_project_name" {
  description = "Name of the CodeBuild project."
  value       = aws_codebuild_project.image.name
}

output "build_source_key" {
  description = "Key of the source archive in the bucket."
  value       = local.build_source_key
}

output "repository_arn" {
  description = "ARN of the repository."
  value       = aws_ecr_repository.this.arn
}

output "repository_name" {
  description = "Name of the repository."
  value       = aws_ecr_repository.this.name
}

output "repository_url" {
  description = "Address of the repository, without a tag."
  value       = aws_ecr_repository.this.repository_url
}
