//go:build linux

package workload

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseCgroup(t *testing.T) {
	const (
		inner    = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
		outer    = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
		podUID   = "2d3b1c4e-5f60-4a7b-8c9d-0e1f2a3b4c5d"
		podSlice = "2d3b1c4e_5f60_4a7b_8c9d_0e1f2a3b4c5d"
		otherUID = "9a8b7c6d-5e4f-4321-8765-fedcba987654"
		hash     = "b6c1d2e3f405162738495a6b7c8d9eaf"
	)
	tests := []struct{ fixture, path, containerID, podUID string }{
		{"docker_v1_cgroupfs", "/docker/" + inner, inner, ""},
		{"docker_v1_systemd", "/system.slice/docker-" + inner + ".scope", inner, ""},
		{"docker_v2_cgroupfs", "/docker/" + inner, inner, ""},
		{"docker_v2_systemd", "/system.slice/docker-" + inner + ".scope", inner, ""},
		{"docker_v2_rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + inner + ".scope", inner, ""},
		{"docker_v2_own_slice", "/shop.slice/docker-" + inner + ".scope", inner, ""},
		{"docker_hybrid", "/docker/" + inner, inner, ""},
		{"docker_hybrid_systemd", "/system.slice/docker-" + inner + ".scope", inner, ""},
		{"docker_v2_systemd_inside", "/system.slice/docker-" + inner + ".scope/init.scope", inner, ""},
		{"docker_v1_service_inside", "/docker/" + inner + "/system.slice/ssh.service", inner, ""},
		{"docker_systemd_path_with_cgroupfs", "/system.slice:docker:" + inner, inner, ""},
		{"nerdctl_v2_systemd", "/system.slice/nerdctl-" + inner + ".scope", inner, ""},
		{"containerd_v2_namespace", "/default/" + inner, inner, ""},
		{"kubepods_v1_cgroupfs_burstable", "/kubepods/burstable/pod" + podUID + "/" + inner, inner, podUID},
		{"kubepods_v1_cgroupfs_besteffort", "/kubepods/besteffort/pod" + podUID + "/" + inner, inner, podUID},
		{"kubepods_v1_cgroupfs_guaranteed", "/kubepods/pod" + podUID + "/" + inner, inner, podUID},
		{"kubepods_v2_systemd_containerd_burstable", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice/cri-containerd-" + inner + ".scope", inner, podUID},
		{"kubepods_v1_systemd_docker_burstable", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice/docker-" + inner + ".scope", inner, podUID},
		{"kubepods_v2_systemd_crio_burstable", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice/crio-" + inner + ".scope", inner, podUID},
		{"kubepods_v2_systemd_containerd_besteffort", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podSlice + ".slice/cri-containerd-" + inner + ".scope", inner, podUID},
		{"kubepods_v1_systemd_docker_besteffort", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podSlice + ".slice/docker-" + inner + ".scope", inner, podUID},
		{"kubepods_v2_systemd_crio_besteffort", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podSlice + ".slice/crio-" + inner + ".scope", inner, podUID},
		{"kubepods_v2_systemd_containerd_guaranteed", "/kubepods.slice/kubepods-pod" + podSlice + ".slice/cri-containerd-" + inner + ".scope", inner, podUID},
		{"kubepods_v1_systemd_docker_guaranteed", "/kubepods.slice/kubepods-pod" + podSlice + ".slice/docker-" + inner + ".scope", inner, podUID},
		{"kubepods_v2_systemd_crio_guaranteed", "/kubepods.slice/kubepods-pod" + podSlice + ".slice/crio-" + inner + ".scope", inner, podUID},
		{"kubepods_v2_crio_container_below", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice/crio-" + inner + ".scope/container", inner, podUID},
		{"kubepods_v2_crio_conmon", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice/crio-conmon-" + inner + ".scope", "", podUID},
		{"kubepods_v1_cgroupfs_crio", "/kubepods/burstable/pod" + podUID + "/crio-" + inner, inner, podUID},
		{"kubepods_v1_cgroupfs_crio_conmon", "/kubepods/burstable/pod" + podUID + "/crio-conmon-" + inner, "", podUID},
		{"kubepods_v2_cgroupfs", "/kubepods/besteffort/pod" + podUID + "/" + inner, inner, podUID},
		{"kubepods_v1_containerd_systemd_path", "/system.slice/containerd.service/kubepods-burstable-pod" + podSlice + ".slice:cri-containerd:" + inner, inner, podUID},
		{"kubepods_static_pod", "/kubepods/burstable/pod" + hash + "/" + inner, inner, hash},
		{"kubepods_static_pod_systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hash + ".slice/cri-containerd-" + inner + ".scope", inner, hash},
		{"kubepods_pod_without_container", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice", "", podUID},
		{"kubepods_below_own_root", "/system.slice/k3s.service/kubepods/besteffort/pod" + podUID + "/" + inner, inner, podUID},
		{"kind_v2_systemd", "/docker/" + outer + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + podSlice + ".slice/cri-containerd-" + inner + ".scope", inner, podUID},
		{"kind_v1_cgroupfs", "/docker/" + outer + "/kubelet/kubepods/besteffort/pod" + podUID + "/" + inner, inner, podUID},
		{"kind_node_itself", "/docker/" + outer + "/system.slice/kubelet.service", outer, ""},
		{"docker_in_docker_in_pod", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podSlice + ".slice/cri-containerd-" + outer + ".scope/docker/" + inner, inner, podUID},
		{"kind_in_pod", "/kubepods/burstable/pod" + otherUID + "/" + outer + "/docker/" + outer + "/kubelet/kubepods/pod" + podUID + "/" + inner, inner, podUID},
		{"podman_v2_systemd", "/machine.slice/libpod-" + inner + ".scope/container", inner, ""},
		{"podman_v2_conmon", "/machine.slice/libpod-conmon-" + inner + ".scope", "", ""},
		{"podman_v2_rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + inner + ".scope/container", inner, ""},
		{"podman_v2_pod", "/machine.slice/machine-libpod_pod_" + outer + ".slice/libpod-" + inner + ".scope", inner, ""},
		{"podman_v1_cgroupfs", "/libpod_parent/libpod-" + inner, inner, ""},
		{"podman_v1_cgroupfs_pod", "/libpod_parent/" + outer + "/libpod-" + inner, inner, ""},
		{"podman_v1_cgroupfs_conmon", "/libpod_parent/" + outer + "/conmon", "", ""},
		{"podman_v2_quadlet", "/system.slice/shop.service/libpod-payload-" + inner, inner, ""},
		{"ecs_v1", "/ecs/shop/" + otherUID + "/" + inner, inner, ""},
		{"ecs_fargate_v1", "/ecs/" + hash + "/" + hash + "-2531612879", hash + "-2531612879", ""},
		{"garden_v1", "/garden/" + otherUID, otherUID, ""},
		{"garden_v1_short", "/garden/6f265890-5165-7fab-6b52-18d1", "6f265890-5165-7fab-6b52-18d1", ""},
		{"systemd_service_v2", "/system.slice/nginx.service", "", ""},
		{"systemd_service_v1", "/system.slice/nginx.service", "", ""},
		{"systemd_service_hybrid", "/system.slice/nginx.service", "", ""},
		{"systemd_session", "/user.slice/user-1000.slice/session-3.scope", "", ""},
		{"root_v2", "/", "", ""},
		{"root_hybrid_with_memory", "/batch/7f8e9d0c1b2a39485766758493a2b1c0", "", ""},
		{"kernel_thread", "/", "", ""},
		{"hash_that_is_no_container", "/system.slice/build-a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4.service", "", ""},
		{"image_hash_in_slice", "/machine.slice/machine-libpod_pod_" + outer + ".slice", "", ""},
		{"cgroup_namespace_sibling", "/kubepods-burstable-pod" + podSlice + ".slice/cri-containerd-" + inner + ".scope", inner, podUID},
		{"cgroup_namespace_parent", "/", "", ""},
		{"cgroup_namespace_grandparent", "/", "", ""},
		{"cgroup_namespace_own", "/", "", ""},
		{"removed_v2", "/system.slice/docker-" + inner + ".scope", inner, ""},
		{"no_last_newline", "/docker/" + inner, inner, ""},
		{"empty", "", "", ""},
		{"broken_lines", "/good", "", ""},
		{"truncated_line", "/docker/a1b2c3d4", "", ""},
		{"colon_in_path", "/system.slice/a:b:c.service", "", ""},
		{"upper_case_is_no_id", "/docker/A1B2C3D4E5F60718293A4B5C6D7E8F90A1B2C3D4E5F60718293A4B5C6D7E8F90", "", ""},
	}
	used := map[string]bool{}
	for _, test := range tests {
		t.Run(test.fixture, func(t *testing.T) {
			used[test.fixture+".txt"] = true
			content, err := os.ReadFile(filepath.Join("testdata/cgroup", test.fixture+".txt"))
			require.NoError(t, err)
			want := cgroupIdentity{path: test.path, containerID: test.containerID, podUID: test.podUID}
			assert.Equal(t, want, parseCgroup(content))
		})
	}
	fixtures, err := os.ReadDir("testdata/cgroup")
	require.NoError(t, err)
	for _, fixture := range fixtures {
		assert.True(t, used[fixture.Name()], "no test uses the fixture %s", fixture.Name())
	}
}

func FuzzParseCgroup(f *testing.F) {
	fixtures, err := filepath.Glob("testdata/cgroup/*.txt")
	require.NoError(f, err)
	for _, fixture := range fixtures {
		content, err := os.ReadFile(fixture)
		require.NoError(f, err)
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		identity := parseCgroup(content)
		for _, text := range []string{identity.path, identity.containerID, identity.podUID} {
			assert.True(t, utf8.ValidString(text))
		}
		assert.LessOrEqual(t, len(identity.containerID), 64)
		assert.LessOrEqual(t, len(identity.podUID), 36)
		if identity.path != "" {
			assert.True(t, strings.HasPrefix(identity.path, "/"))
			assert.False(t, identity.path == "/.." || strings.HasPrefix(identity.path, "/../"))
		}
	})
}

func TestFindCgroup2Mount(t *testing.T) {
	tests := []struct{ name, mountInfo, preferred, point, root string }{
		{
			"version 2", "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"/sys/fs/cgroup", "/sys/fs/cgroup", "/",
		},
		{
			"hybrid", "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n" +
				"34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 master:2 - cgroup2 cgroup2 rw\n",
			"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/",
		},
		{
			"the host's mount is preferred", "41 31 0:38 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" +
				"42 31 0:38 /../../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"/host/sys/fs/cgroup", "/host/sys/fs/cgroup", "/",
		},
		{
			"a part of the tree", "42 31 0:38 /kubepods/pod1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"/sys/fs/cgroup", "/sys/fs/cgroup", "/kubepods/pod1",
		},
		{
			"elsewhere, with a space", "42 31 0:38 / /mnt/my\\040groups\\134 rw - cgroup2 none rw\n",
			"/sys/fs/cgroup", `/mnt/my groups\`, "/",
		},
		{"similar name", "42 31 0:38 / /sys/fs/cgroup2 rw - cgroup2 none rw\n", "/sys/fs/cgroup", "/sys/fs/cgroup2", "/"},
		{"only version 1", "34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "/sys/fs/cgroup", "", ""},
		{"broken", "34\n - cgroup2\n1 2 3 4 5 6 - \n", "/sys/fs/cgroup", "", ""},
		{"empty", "", "/sys/fs/cgroup", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			point, root, found := findCgroup2Mount([]byte(test.mountInfo), test.preferred)
			assert.Equal(t, test.point, point)
			assert.Equal(t, test.root, root)
			assert.Equal(t, test.point != "", found)
		})
	}
}

func FuzzFindCgroup2Mount(f *testing.F) {
	f.Add([]byte("41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n"))
	f.Add([]byte(`42 31 0:38 / /mnt/\040\999\ rw - cgroup2 none rw`))
	f.Fuzz(func(t *testing.T, content []byte) {
		point, root, found := findCgroup2Mount(content, "/sys/fs/cgroup")
		if !found {
			assert.Empty(t, point)
			assert.Empty(t, root)
		}
		assert.True(t, bytes.Contains(content, []byte("cgroup2")) || !found)
	})
}
