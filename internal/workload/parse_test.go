//go:build linux

package workload

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// statLine is a line of /proc/PID/stat with fields 3 to 22 as given, and the rest as the kernel writes it.
func statLine(name, state string, parent, flags, threads, start any) string {
	return fmt.Sprintf("4321 (%s) %s %v 1 1 34816 1 %v 10 20 0 0 3 4 0 0 20 0 %v 0 %v 10000 200 184467\n",
		name, state, parent, flags, threads, start)
}

func TestParseStat(t *testing.T) {
	ordinary := stat{comm: "nginx", state: 'S', parentPID: 1, threads: 4, startTicks: 98765}
	named := func(name string) stat {
		parsed := ordinary
		parsed.comm = name
		return parsed
	}
	tests := []struct {
		name, content string
		want          stat
		wantErr       string
	}{
		{"ordinary", statLine("nginx", "S", 1, 4194304, 4, 98765), ordinary, ""},
		{"spaces", statLine("tmux: server", "S", 1, 0, 4, 98765), named("tmux: server"), ""},
		{"parentheses", statLine("a) S 1 (b", "S", 1, 0, 4, 98765), named("a) S 1 (b"), ""},
		{"only parentheses", statLine(")))(", "S", 1, 0, 4, 98765), named(")))("), ""},
		{"a line break, escaped", statLine(`a\nb`, "S", 1, 0, 4, 98765), named("a\nb"), ""},
		{"a backslash, escaped", statLine(`a\\nb`, "S", 1, 0, 4, 98765), named(`a\nb`), ""},
		{"empty name", statLine("", "S", 1, 0, 4, 98765), named(""), ""},
		{"no text", statLine("\xff\xfe", "S", 1, 0, 4, 98765), named("\uFFFD"), ""},
		{"long name", statLine(strings.Repeat("k", 200), "S", 1, 0, 4, 98765), named(strings.Repeat("k", 64)), ""},
		{
			"kernel thread", statLine("kworker/0:1-events", "I", 2, 69238880, 1, 55),
			stat{comm: "kworker/0:1-events", state: 'I', parentPID: 2, kernelThread: true, threads: 1, startTicks: 55}, "",
		},
		{
			"zombie", statLine("sh", "Z", 7, 4228172, 1, 12),
			stat{comm: "sh", state: 'Z', parentPID: 7, threads: 1, startTicks: 12}, "",
		},
		{
			"latest start", statLine("x", "R", 0, 0, 1, uint64(1<<64-1)),
			stat{comm: "x", state: 'R', threads: 1, startTicks: 1<<64 - 1}, "",
		},
		{"empty", "", stat{}, "no process name"},
		{"no name", "4321 S 1 1", stat{}, "no process name"},
		{"unfinished name", "4321 (ngi", stat{}, "no process name"},
		{"turned around", "4321 )x(", stat{}, "no process name"},
		{"cut off", statLine("nginx", "S", 1, 0, 4, 98765)[:60], stat{}, "fields after the process name"},
		{"long state", statLine("nginx", "SLEEP", 1, 0, 4, 98765), stat{}, "not one letter"},
		{"parent is no number", statLine("nginx", "S", "x", 0, 4, 98765), stat{}, "field 4"},
		{"flags are no number", statLine("nginx", "S", 1, "-1", 4, 98765), stat{}, "field 9"},
		{"threads are no number", statLine("nginx", "S", 1, 0, "x", 98765), stat{}, "field 20"},
		{"start is no number", statLine("nginx", "S", 1, 0, 4, "18446744073709551616"), stat{}, "field 22"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parsed, err := parseStat([]byte(test.content))
			if test.wantErr != "" {
				assert.ErrorContains(t, err, test.wantErr)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, parsed)
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine("a) S 1 (b", "S", 1, 4194304, 4, 98765)))
	f.Add([]byte(statLine(`a\nb\\`, "Z", 1, 0, 4, 0)))
	own, err := os.ReadFile("/proc/self/stat")
	require.NoError(f, err)
	f.Add(own)
	f.Fuzz(func(t *testing.T, content []byte) {
		parsed, err := parseStat(content)
		assert.True(t, utf8.ValidString(parsed.comm))
		if err != nil {
			assert.Zero(t, parsed.startTicks)
		}
	})
}

func TestParseCommandLine(t *testing.T) {
	long := strings.Repeat("x", 5000)
	tests := []struct{ name, content, command, commandLine string }{
		{"ordinary", "/usr/bin/python3\x00-m\x00http.server\x00", "/usr/bin/python3", "/usr/bin/python3 -m http.server"},
		{"empty argument", "sh\x00-c\x00\x00x\x00", "sh", "sh -c  x"},
		{"a title", "nginx: worker process\x00\x00\x00\x00\x00", "nginx: worker process", "nginx: worker process"},
		{"a title without an end", "sshd: root@pts/0", "sshd: root@pts/0", "sshd: root@pts/0"},
		{"nothing", "", "", ""},
		{"only zeros", "\x00\x00\x00", "", ""},
		{"no program name", "\x00-x\x00", "", " -x"},
		{"no text", "a\xff\xfeb\x00c\x00", "a\uFFFDb", "a\uFFFDb c"},
		{"huge", long + "\x00" + long, long[:512], long[:2048]},
		{"cut within a character", strings.Repeat("x", 511) + "é\x00", strings.Repeat("x", 511), strings.Repeat("x", 511) + "é"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			command, commandLine := parseCommandLine([]byte(test.content))
			assert.Equal(t, test.command, command)
			assert.Equal(t, test.commandLine, commandLine)
		})
	}
}

func FuzzParseCommandLine(f *testing.F) {
	f.Add([]byte("/usr/bin/python3\x00-m\x00http.server\x00"))
	f.Add([]byte(strings.Repeat("\xe9", 4096)))
	f.Fuzz(func(t *testing.T, content []byte) {
		command, commandLine := parseCommandLine(content)
		assert.True(t, utf8.ValidString(command) && utf8.ValidString(commandLine))
		assert.NotContains(t, commandLine, "\x00")
		// A byte that is no text becomes three.
		assert.LessOrEqual(t, len(command), 3*maxCommandBytes)
		assert.LessOrEqual(t, len(commandLine), 3*maxCommandLineBytes)
	})
}

func TestParseExecutable(t *testing.T) {
	for target, want := range map[string]string{
		"/usr/sbin/nginx":           "/usr/sbin/nginx",
		"/usr/sbin/nginx (deleted)": "/usr/sbin/nginx",
		"/memfd:runc (deleted)":     "/memfd:runc",
		"/opt/with space/a b":       "/opt/with space/a b",
		"/opt/\xff":                 "/opt/\uFFFD",
		"":                          "",
	} {
		assert.Equal(t, want, parseExecutable([]byte(target)))
	}
}

func FuzzParseExecutable(f *testing.F) {
	f.Add([]byte("/usr/sbin/nginx (deleted)"))
	f.Fuzz(func(t *testing.T, target []byte) {
		assert.True(t, utf8.ValidString(parseExecutable(target)))
	})
}

func TestParseEnviron(t *testing.T) {
	tests := []struct {
		name, content string
		want          environment
	}{
		{"nothing", "", environment{}},
		{"others only", "PATH=/bin\x00HOME=/root\x00", environment{}},
		{"name", "A=1\x00OTEL_SERVICE_NAME=checkout\x00B=2\x00", environment{service: Service{Name: "checkout"}}},
		{
			"name wins over attributes",
			"OTEL_RESOURCE_ATTRIBUTES=service.name=other,service.version=2\x00OTEL_SERVICE_NAME=checkout\x00",
			environment{service: Service{Name: "checkout", Version: "2"}},
		},
		{
			"an empty name is none", "OTEL_SERVICE_NAME=  \x00OTEL_RESOURCE_ATTRIBUTES=service.name=other\x00",
			environment{service: Service{Name: "other"}},
		},
		{"space around", "OTEL_SERVICE_NAME= checkout \x00", environment{service: Service{Name: "checkout"}}},
		{"the first counts", "OTEL_SERVICE_NAME=a\x00OTEL_SERVICE_NAME=b\x00", environment{service: Service{Name: "a"}}},
		{"not at the start of a variable", "MY_OTEL_SERVICE_NAME=a\x00X=OTEL_SERVICE_NAME=b\x00", environment{}},
		{"no last zero", "OTEL_SERVICE_NAME=checkout", environment{service: Service{Name: "checkout"}}},
		{"a title over it", "worker process\x00\x00\x00\x00", environment{}},
		{"no text", "OTEL_SERVICE_NAME=a\xff\x00", environment{service: Service{Name: "a\uFFFD"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parsed := parseEnviron([]byte(test.content))
			assert.Equal(t, test.want, parsed)
			assert.Equal(t, test.want.service == Service{} && test.want.attributes == nil, parsed.empty())
		})
	}
}

func TestParseResourceAttributes(t *testing.T) {
	tests := []struct {
		name, text string
		want       environment
	}{
		{
			"all of the service's",
			"service.name=checkout,service.namespace=shop,service.version=1.2,service.instance.id=i-1",
			environment{service: Service{Name: "checkout", Namespace: "shop", Version: "1.2", InstanceID: "i-1"}},
		},
		{
			"others, sorted", "team=a,deployment.environment.name=prod",
			environment{attributes: []Attribute{{"deployment.environment.name", "prod"}, {"team", "a"}}},
		},
		{"percent-encoded", "team=a%2Cb%3Dc%20%C3%A9", environment{attributes: []Attribute{{"team", "a,b=c é"}}}},
		{"a plus is a plus", "team=a+b", environment{attributes: []Attribute{{"team", "a+b"}}}},
		{"cannot be decoded", "team=100%,x=%zz", environment{attributes: []Attribute{{"team", "100%"}, {"x", "%zz"}}}},
		{"decodes to no text", "team=%FF%FE", environment{attributes: []Attribute{{"team", "\uFFFD"}}}},
		{"space around", " team = a , x = y ", environment{attributes: []Attribute{{"team", "a"}, {"x", "y"}}}},
		{"equals sign in the value", "team=a=b", environment{attributes: []Attribute{{"team", "a=b"}}}},
		{"no value, no key, no pair", "team=,=x,y,,service.name=s", environment{
			service: Service{Name: "s"}, attributes: []Attribute{{"team", ""}},
		}},
		{"the last counts", "team=a,team=b", environment{attributes: []Attribute{{"team", "b"}}}},
		{"too long", "team=" + strings.Repeat("x", 5000), environment{attributes: []Attribute{{"team", strings.Repeat("x", 1024)}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, parseResourceAttributes(test.text))
		})
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "key%d=x,", i)
	}
	assert.Len(t, parseResourceAttributes(many.String()).attributes, maxAttributes)
}

func FuzzParseEnviron(f *testing.F) {
	f.Add([]byte("A=1\x00OTEL_SERVICE_NAME=checkout\x00OTEL_RESOURCE_ATTRIBUTES=service.version=1%2E2,team=a%2Cb,=,x\x00"))
	f.Add([]byte("OTEL_RESOURCE_ATTRIBUTES=%=%,%FF=%FF\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		parsed := parseEnviron(content)
		assert.LessOrEqual(t, len(parsed.attributes), maxAttributes)
		texts := []string{parsed.service.Name, parsed.service.Namespace, parsed.service.Version, parsed.service.InstanceID}
		for i, attribute := range parsed.attributes {
			assert.NotEmpty(t, attribute.Key)
			texts = append(texts, attribute.Key, attribute.Value)
			if i > 0 {
				assert.Less(t, parsed.attributes[i-1].Key, attribute.Key)
			}
		}
		for _, text := range texts {
			assert.True(t, utf8.ValidString(text))
			assert.LessOrEqual(t, len(text), 3*maxAttributeValueBytes)
		}
	})
}

func TestParseBootTimeOffset(t *testing.T) {
	tests := []struct {
		content string
		want    int64
		fails   bool
	}{
		{"monotonic           0         0\nboottime            0         0\n", 0, false},
		{"monotonic  86400  0\nboottime  -604800  500\n", -604800*1e9 + 500, false},
		{"1 5 0\n7 10 1\n", 10*1e9 + 1, false},
		{"", 0, false},
		{"boottime x 0\n", 0, true},
		{"boottime 0 99999999999999999999\n", 0, true},
	}
	for _, test := range tests {
		offset, err := parseBootTimeOffset([]byte(test.content))
		assert.Equal(t, test.fails, err != nil, test.content)
		assert.Equal(t, test.want, offset, test.content)
	}
}

func FuzzParseBootTimeOffset(f *testing.F) {
	f.Add([]byte("monotonic  86400  0\nboottime  -604800  500\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if offset, err := parseBootTimeOffset(content); err != nil {
			assert.Zero(t, offset)
		}
	})
}

func TestClean(t *testing.T) {
	for _, test := range []struct {
		source string
		limit  int
		want   string
	}{
		{"plain", 10, "plain"},
		{"plain", 3, "pla"},
		{"aé", 2, "a"},
		{"aé", 3, "aé"},
		{"a€", 3, "a"},
		{"a😀", 4, "a"},
		{"\x80\x80\x80\x80\x80", 3, "\uFFFD"},
		{"", 0, ""},
		{"é", 0, ""},
	} {
		assert.Equal(t, test.want, clean([]byte(test.source), test.limit), "%q to %d", test.source, test.limit)
	}
}
