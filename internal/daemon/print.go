package daemon

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Print writes the configuration as YAML that [Load] reads, each value with its
// origin as a comment. What is secret stands in files, never in a configuration.
func (l Loaded[T]) Print(w io.Writer) error {
	node := l.node(reflect.ValueOf(l.Config), "")
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	return enc.Close()
}

func (l Loaded[T]) node(v reflect.Value, path string) *yaml.Node {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null", LineComment: l.origin(path)}
		}
		v = v.Elem()
	}
	if text, ok := asText(v); ok {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, LineComment: l.origin(path)}
	}
	switch v.Kind() {
	case reflect.Struct:
		out := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range reflect.VisibleFields(v.Type()) {
			key := keyOf(f)
			if len(f.Index) > 1 || !f.IsExported() || key == "-" {
				continue
			}
			l.put(out, key, v.FieldByIndex(f.Index), path)
		}
		return out
	case reflect.Map:
		out := &yaml.Node{Kind: yaml.MappingNode}
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			l.put(out, key.String(), v.MapIndex(key), path)
		}
		if len(keys) == 0 {
			out.Style = yaml.FlowStyle
			out.LineComment = l.origin(path)
		}
		return out
	case reflect.Slice:
		out := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			out.Content = append(out.Content, l.node(v.Index(i), fmt.Sprintf("%s[%d]", path, i)))
		}
		if v.Len() == 0 {
			out.Style = yaml.FlowStyle
			out.LineComment = l.origin(path)
		}
		return out
	}
	out := &yaml.Node{}
	if err := out.Encode(v.Interface()); err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}
	}
	out.LineComment = l.origin(path)
	return out
}

func (l Loaded[T]) put(out *yaml.Node, key string, v reflect.Value, path string) {
	out.Content = append(out.Content,
		&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, l.node(v, join(path, key)))
}

// origin returns who set the value at path.
func (l Loaded[T]) origin(path string) string {
	if from, ok := l.Origins[path]; ok {
		return from
	}
	return "default"
}

func asText(v reflect.Value) (string, bool) {
	if v.Type() == durationType {
		return v.Interface().(time.Duration).String(), true
	}
	if m, ok := reflect.TypeAssert[encoding.TextMarshaler](v); ok {
		text, err := m.MarshalText()
		return string(text), err == nil
	}
	return "", false
}
