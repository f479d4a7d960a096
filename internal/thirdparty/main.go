// Command thirdparty writes the .proto sources that our protos import and that
// come from other modules into third_party/. Their descriptors travel inside
// the Go modules that go.mod pins, so the sources always fit the generated code
// that is linked, and nothing is fetched from a registry of protos.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var wanted = []string{"buf/validate/validate.proto"}

func main() {
	if err := write("third_party"); err != nil {
		fmt.Fprintln(os.Stderr, "thirdparty:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	printer := &protoprint.Printer{}
	for _, name := range wanted {
		file, err := protoregistry.GlobalFiles.FindFileByPath(name)
		if err != nil {
			return err
		}
		text, err := printer.PrintProtoToString(file)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
