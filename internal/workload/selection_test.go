//go:build linux

package workload

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSelectionValidate(t *testing.T) {
	selection := Selection{
		Include: []Rule{
			{Port: "http"},
			{},
			{Executable: "/usr/bin/[", ContainerID: "xyz"},
			{Port: "0"},
			{Port: "8090-8080"},
			{Port: "80-70000"},
			{Port: "80-"},
			{Executable: "usr/bin/python3"},
			{Executable: "nginx", Port: "80"},
		},
		Exclude: []Rule{
			{Cgroup: "kubepods/**"},
			{Cgroup: "/a/{b"},
			{ContainerID: "0123456789a"},
			{ContainerID: "0123456789AB"},
			{ContainerID: "0123456789ab"},
		},
	}
	err := selection.Validate()
	require.Error(t, err)
	for _, want := range []string{
		`include[0].port: "http": not a number; want a port such as "8080" or a range such as "8080-8090", from 1 to 65535`,
		"include[1]: the rule is empty; set at least one of executable, port, pid, cgroup, container_id",
		`include[2].executable: "/usr/bin/[" is not a valid pattern`,
		`include[2].container_id: "xyz" is not a container id; want at least its first 12 hexadecimal digits`,
		`include[3].port: "0": out of range`,
		`include[4].port: "8090-8080": the range ends before it starts`,
		`include[5].port: "80-70000": out of range`,
		`include[6].port: "80-": not a number`,
		`include[7].executable: "usr/bin/python3" never matches`,
		`exclude[0].cgroup: "kubepods/**" never matches`,
		`exclude[1].cgroup: "/a/{b" is not a valid pattern`,
		`exclude[2].container_id`,
		`exclude[3].container_id`,
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.NotContains(t, err.Error(), "include[8]")
	assert.NotContains(t, err.Error(), "exclude[4]")
	assert.Len(t, strings.Split(err.Error(), "\n"), 13)

	selector, err := selection.Compile()
	assert.Nil(t, selector)
	assert.Error(t, err)
	assert.NoError(t, Selection{}.Validate())
}

func TestSelectorMatch(t *testing.T) {
	const container = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
	nginx := &Workload{
		PID: 1234, ExecutablePath: "/usr/sbin/nginx", ExecutableName: "nginx",
		CgroupPath: "/system.slice/nginx.service",
	}
	pod := &Workload{
		PID: 99, ExecutablePath: "/usr/local/bin/python3.11", ExecutableName: "python3.11",
		CgroupPath: "/kubepods/burstable/pod1/" + container, ContainerID: container,
	}
	gone := &Workload{PID: 7, ExecutableName: "curl"}
	include := func(rules ...Rule) Selection { return Selection{Include: rules} }
	tests := []struct {
		name      string
		selection Selection
		workload  *Workload
		port      uint16
		want      bool
	}{
		{"nothing selected is everything", Selection{}, nginx, 80, true},
		{"name", include(Rule{Executable: "nginx"}), nginx, 80, true},
		{"name is not a part", include(Rule{Executable: "ngin"}), nginx, 80, false},
		{"name with star", include(Rule{Executable: "python3*"}), pod, 80, true},
		{"name of a process that has gone", include(Rule{Executable: "c{url,at}"}), gone, 80, true},
		{"path", include(Rule{Executable: "/usr/sbin/nginx"}), nginx, 80, true},
		{"path of another", include(Rule{Executable: "/usr/sbin/nginx"}), pod, 80, false},
		{"path with star", include(Rule{Executable: "/usr/*/bin/python3*"}), pod, 80, true},
		{"a star does not pass a slash", include(Rule{Executable: "/usr/*"}), nginx, 80, false},
		{"two stars do", include(Rule{Executable: "/usr/**"}), nginx, 80, true},
		{"anywhere", include(Rule{Executable: "**/nginx"}), nginx, 80, true},
		{"every path, but it is not known", include(Rule{Executable: "/**"}), gone, 80, false},
		{"port", include(Rule{Port: "80"}), nginx, 80, true},
		{"other port", include(Rule{Port: "80"}), nginx, 81, false},
		{"range, first", include(Rule{Port: "8080-8090"}), nginx, 8080, true},
		{"range, last", include(Rule{Port: "8080 - 8090"}), nginx, 8090, true},
		{"range, after", include(Rule{Port: "8080-8090"}), nginx, 8091, false},
		{"highest port", include(Rule{Port: "1-65535"}), nginx, 65535, true},
		{"no port", include(Rule{Port: "1-65535"}), nginx, 0, false},
		{"pid", include(Rule{PID: 1234}), nginx, 80, true},
		{"other pid", include(Rule{PID: 1234}), pod, 80, false},
		{"cgroup", include(Rule{Cgroup: "/kubepods/**"}), pod, 80, true},
		{"other cgroup", include(Rule{Cgroup: "/kubepods/**"}), nginx, 80, false},
		{"cgroup is not known", include(Rule{Cgroup: "/**"}), gone, 80, false},
		{"unit", include(Rule{Cgroup: "/system.slice/*.service"}), nginx, 80, true},
		{"container", include(Rule{ContainerID: container}), pod, 80, true},
		{"short container id", include(Rule{ContainerID: container[:12]}), pod, 80, true},
		{"other container", include(Rule{ContainerID: "ffffffffffff"}), pod, 80, false},
		{"no container", include(Rule{ContainerID: container[:12]}), nginx, 80, false},
		{"fields are a conjunction", include(Rule{Executable: "nginx", Port: "80"}), nginx, 80, true},
		{"one field does not do", include(Rule{Executable: "nginx", Port: "80"}), nginx, 81, false},
		{"rules are a disjunction", include(Rule{PID: 1}, Rule{Executable: "nginx"}), nginx, 80, true},
		{"excluded", Selection{Exclude: []Rule{{Executable: "nginx"}}}, nginx, 80, false},
		{"not excluded", Selection{Exclude: []Rule{{Executable: "nginx"}}}, pod, 80, true},
		{"exclude wins", Selection{Include: []Rule{{Port: "80"}}, Exclude: []Rule{{PID: 1234}}}, nginx, 80, false},
		{"exclude one port", Selection{Include: []Rule{{PID: 1234}}, Exclude: []Rule{{Port: "22"}}}, nginx, 80, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			selector, err := test.selection.Compile()
			require.NoError(t, err)
			assert.Equal(t, test.want, selector.Match(test.workload, test.port))
		})
	}
}

func BenchmarkSelectorMatch(b *testing.B) {
	selector, err := Selection{
		Include: []Rule{{Executable: "/usr/**/python3*", Port: "8080-8090"}, {Cgroup: "/kubepods/**"}},
		Exclude: []Rule{{Executable: "sshd"}},
	}.Compile()
	require.NoError(b, err)
	workload := &Workload{ExecutablePath: "/usr/bin/python3.11", ExecutableName: "python3.11", CgroupPath: "/user.slice"}
	b.ReportAllocs()
	for b.Loop() {
		if !selector.Match(workload, 8081) {
			b.Fatal("no match")
		}
	}
}
