package profile

import semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

// Attributes that have a semantic convention, all of them in development.
const (
	attrProcessID      = string(semconv.ProcessPIDKey)
	attrThreadID       = string(semconv.ThreadIDKey)
	attrThreadName     = string(semconv.ThreadNameKey)
	attrCPU            = string(semconv.CPULogicalNumberKey)
	attrFrameType      = string(semconv.ProfileFrameTypeKey)
	attrBuildIDGNU     = string(semconv.ProcessExecutableBuildIDGNUKey)
	attrBuildIDGo      = string(semconv.ProcessExecutableBuildIDGoKey)
	attrBuildIDHtlhash = string(semconv.ProcessExecutableBuildIDHtlhashKey)
)

// Attributes that have none.
const (
	attrIncomplete   = "profile.stack.incomplete"
	attrOffCPUReason = "profile.off_cpu.reason"
)
