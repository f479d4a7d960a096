package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EnvPrefix starts the names of our variables.
const EnvPrefix = "WATTFOLD_"

// reservedEnv are variables with our prefix that are not configuration.
var reservedEnv = map[string]bool{"WATTFOLD_LOG_LEVEL": true, "WATTFOLD_SERVER": true}

// Validator is a configuration that can tell whether it makes sense. Validate
// returns all mistakes, joined, each starting with its dotted path.
type Validator interface{ Validate() error }

// Loaded is a configuration and where its values come from.
type Loaded[T any] struct {
	// Config is in effect.
	Config T
	// Origins tells, by dotted path, which layer set a value: "file:line", a
	// variable or "flag"; a path that is not there has its default.
	Origins map[string]string
}

// Load returns defaults overlaid with the YAML file (none if the name is ""), the
// variables that start with envPrefix (none if it is "") and flags, which maps
// dotted paths to values. See [LoadAll].
func Load[T any](defaults T, file string, envPrefix string, flags map[string]any) (T, error) {
	loaded, err := LoadAll(defaults, file, envPrefix, flags)
	return loaded.Config, err
}

// LoadAll is [Load] with origins.
//
// T is a struct. A field's key is its koanf or yaml tag, or its name in
// snake_case; "-" leaves it out. Values are scalars, durations and other types as
// text (encoding.TextUnmarshaler), structs, pointers, lists, which replace the
// list before, and maps, which are merged. PREFIX_GATEWAY__GRPC is gateway.grpc:
// two underscores separate levels; a list is written [a, b].
//
// If T has a Validate method, what it finds is added. The error lists every
// mistake on a line of its own and has exit code 2.
func LoadAll[T any](defaults T, file, envPrefix string, flags map[string]any) (Loaded[T], error) {
	out := Loaded[T]{Config: defaults, Origins: map[string]string{}}
	d := decoder{origins: out.Origins}
	root := reflect.ValueOf(&out.Config).Elem()

	if file != "" {
		d.file(root, file)
	}
	if envPrefix != "" {
		d.env(root, envPrefix, os.Environ())
	}
	for _, path := range slices.Sorted(maps.Keys(flags)) {
		var node yaml.Node
		value := flags[path]
		if text, ok := value.(fmt.Stringer); ok {
			value = text.String() // durations
		}
		if err := node.Encode(value); err != nil {
			d.mistake("flag", path, err.Error())
			continue
		}
		d.at(root, path, &node, "flag")
	}
	if len(d.mistakes) == 0 {
		if v, ok := any(&out.Config).(Validator); ok {
			if err := v.Validate(); err != nil {
				d.mistakes = append(d.mistakes, d.locate(err)...)
			}
		}
	}
	if len(d.mistakes) > 0 {
		return out, Usage(errors.Join(d.mistakes...))
	}
	return out, nil
}

// locate splits joined mistakes of Validate and puts the origin of the value
// before each whose path was set by a layer.
func (d *decoder) locate(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, d.locate(e)...)
		}
		return all
	}
	path, _, _ := strings.Cut(err.Error(), ":")
	if origin, ok := d.origins[strings.TrimSpace(path)]; ok {
		return []error{fmt.Errorf("%s: %w", origin, err)}
	}
	return []error{fmt.Errorf("configuration: %w", err)}
}

func (d *decoder) file(root reflect.Value, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		d.mistakes = append(d.mistakes, fmt.Errorf("configuration: %w", err))
		return
	}
	in := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := in.Decode(&doc); errors.Is(err, io.EOF) {
		return // an empty file
	} else if err != nil {
		d.mistakes = append(d.mistakes, fmt.Errorf("%s: %w", name, err))
		return
	}
	if err := in.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		d.mistakes = append(d.mistakes, fmt.Errorf("%s: more than one document", name))
		return
	}
	d.decode(root, doc.Content[0], "", func(n *yaml.Node) string { return fmt.Sprintf("%s:%d", name, n.Line) })
}

func (d *decoder) env(root reflect.Value, prefix string, environ []string) {
	slices.Sort(environ)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, prefix)
		if !ours || reservedEnv[name] || serviceLink(rest, value) {
			continue
		}
		path := strings.ReplaceAll(strings.ToLower(rest), "__", ".")
		node := &yaml.Node{Kind: yaml.ScalarNode, Value: value}
		if strings.HasPrefix(value, "[") || strings.HasPrefix(value, "{") {
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
				d.mistake(name, path, err.Error())
				continue
			}
			node = doc.Content[0]
		}
		d.at(root, path, node, name)
	}
}

// kubernetesLink matches what Kubernetes sets in every pod for a service that is
// called like our prefix.
var kubernetesLink = regexp.MustCompile(`^(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)$`)

func serviceLink(rest, value string) bool {
	return kubernetesLink.MatchString(rest) ||
		strings.HasSuffix("_"+rest, "_PORT") && (strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://"))
}

// at decodes node into the value at the dotted path.
func (d *decoder) at(root reflect.Value, path string, node *yaml.Node, origin string) {
	keys := strings.Split(path, ".")
	for _, name := range slices.Backward(keys) {
		key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
		node = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, node}}
	}
	d.decode(root, node, "", func(*yaml.Node) string { return origin })
}
