package docker

docker_github_builder(image, repo) if {
	image.hasProvenance
	some signature in image.signatures
	docker_github_builder_signature(signature, repo)
}

docker_github_builder_tag(image, repo, tag) if {
	docker_github_builder(image, repo)
	some signature in image.signatures
	signature.signer.sourceRepositoryRef == concat("", ["refs/tags/", tag])
}

docker_github_builder_signature(signature, repo) if {
	signature.kind == "docker-github-builder"
	signature.type == "bundle-v0.3"
	count(signature.timestamps) > 0

	signer := signature.signer
	signer.certificateIssuer == "CN=sigstore-intermediate,O=sigstore.dev"
	signer.issuer == "https://token.actions.githubusercontent.com"
	signer.runnerEnvironment == "github-hosted"
	signer.sourceRepositoryURI == concat("", ["https://github.com/", repo])
}

docker_github_builder_bundle(http, filename, repo) if {
	docker_github_builder_signature(artifact_attestation(http, filename), repo)
}

github_release_attestation(http) := signature if {
	http.schema == "https"
	lower(http.host) == "github.com"
	[_, owner, repo, "releases", "download", _, _] = array.slice(split(http.path, "/"), 0, 7)
	signature := github_attestation(http, concat("/", [owner, repo]))
}
