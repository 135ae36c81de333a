module spritegate/tests/sdk

go 1.25.8

require github.com/superfly/sprites-go v0.0.0-20260708201521-ea9d9d9f2054

require (
	github.com/Masterminds/semver/v3 v3.2.1 // indirect
	github.com/gorilla/websocket v1.5.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/superfly/client-signals/go v0.3.0 // indirect
	golang.org/x/sys v0.46.0 // indirect
	golang.org/x/term v0.0.0-20220526004731-065cf7ba2467 // indirect
)
