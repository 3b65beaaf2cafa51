//go:build !(linux && (amd64 || arm64))

package ebpfreceiver

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/ebpfreceiver/ebpfreceiver/receiver/ebpfreceiver/internal/metadata"
)

func TestOtherPlatformsSayThatTheyCannot(t *testing.T) {
	factory := NewFactory()
	config := factory.CreateDefaultConfig()
	require.NoError(t, confmap.Validate(config))
	settings := receivertest.NewNopSettings(metadata.Type)
	_, err := factory.CreateMetrics(t.Context(), settings, config, consumertest.NewNop())
	require.ErrorContains(t, err, "this is "+runtime.GOOS+"/"+runtime.GOARCH)
	_, err = factory.CreateLogs(t.Context(), settings, config, consumertest.NewNop())
	require.ErrorContains(t, err, "runs on linux/amd64 and linux/arm64 only")
}
