package rebeca

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Partitions is a set of partitions, rising and each once. In files and on
// command lines it is written as ranges: 0-3, or 0,2,5-7. The empty set stands
// for all.
type Partitions []int32

// ParsePartitions reads a set as it is written in files. The empty string is
// the empty set.
func ParsePartitions(text string) (Partitions, error) {
	var out Partitions
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(strings.TrimSpace(low), 10, 31)
		to, err2 := strconv.ParseUint(strings.TrimSpace(high), 10, 31)
		if err = errors.Join(err, err2); err != nil || from > to || to >= maxPartitions {
			return nil, fmt.Errorf("%q is not a partition or a range such as 0-3, below %d", strings.TrimSpace(part), maxPartitions)
		}
		for p := from; p <= to; p++ {
			if slices.Contains(out, int32(p)) {
				return nil, fmt.Errorf("%d stands twice in %q", p, text)
			}
			out = append(out, int32(p))
		}
	}
	slices.Sort(out)
	return out, nil
}

// String writes the set as it is read.
func (s Partitions) String() string {
	var out []string
	for i := 0; i < len(s); {
		j := i
		for j+1 < len(s) && s[j+1] == s[j]+1 {
			j++
		}
		text := fmt.Sprint(s[i])
		if j > i {
			text = fmt.Sprintf("%d-%d", s[i], s[j])
		}
		out = append(out, text)
		i = j + 1
	}
	return strings.Join(out, ",")
}

// UnmarshalYAML reads ranges or a list of numbers.
func (s *Partitions) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if n.Kind == yaml.SequenceNode {
		var parts []string
		for _, c := range n.Content {
			parts = append(parts, c.Value)
		}
		text = strings.Join(parts, ",")
	}
	set, err := ParsePartitions(text)
	*s = set
	return err
}

// MarshalYAML writes the set as ranges.
func (s Partitions) MarshalYAML() (any, error) { return s.String(), nil }

// validatePartitions checks what divides the work between processes.
func (c Config) validatePartitions(bad func(path, format string, args ...any)) {
	n := int32(c.Kafka.Partitions)
	if len(c.Partitions) > 0 && c.Partitions[len(c.Partitions)-1] >= n {
		bad("partitions", "%d is not below kafka.partitions %d", c.Partitions[len(c.Partitions)-1], n)
	}
	if c.Group != "" && len(c.Partitions) > 0 {
		bad("group", "is set beside partitions: a member of a group is told its partitions, keep one")
	}
	if c.has(RoleTrainer) && (c.Group != "" || len(c.Partitions) > 0 && len(c.Partitions) < int(n)) {
		bad("roles", "the trainer folds all partitions: give it a process of its own (roles: [trainer], without partitions and group) and this one roles: [worker]")
	}
	owner := map[int32]string{}
	for _, peer := range slices.Sorted(maps.Keys(c.Peers)) {
		if u, err := url.Parse(peer); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad("peers", "%q is not the URL of a worker such as http://10.0.0.2:8080", peer)
		}
		for _, p := range c.Peers[peer] {
			if other, twice := owner[p]; twice {
				bad("peers", "partition %d belongs to %s and to %s", p, other, peer)
			} else if p >= n {
				bad("peers", "partition %d of %s is not below kafka.partitions %d", p, peer, n)
			}
			owner[p] = peer
		}
	}
}

// static returns the partitions that the configuration gives to this process.
func (c Config) static() Partitions {
	if len(c.Partitions) > 0 {
		return c.Partitions
	}
	all := make(Partitions, c.Kafka.Partitions)
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// divided reports whether other workers have partitions too.
func (c Config) divided() bool {
	return c.Group != "" || len(c.Partitions) > 0 && len(c.Partitions) < c.Kafka.Partitions
}

// groupName is the group under which offsets and claims stand.
func (c Config) groupName() string {
	if c.Group != "" {
		return c.Group
	}
	return defaultGroup
}

// defaultGroup is the group of processes that are not members of one.
const defaultGroup = "rebeca"

// peerOf returns the URL of the worker that the configuration names for a
// partition; empty where it names none.
func (c Config) peerOf(partition int32) string {
	for peer, set := range c.Peers {
		if slices.Contains(set, partition) {
			return peer
		}
	}
	return ""
}
