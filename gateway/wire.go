package gateway

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	accessv1 "github.com/wattfold/wattfold/proto/gen/wattfold/access/v1"
	// Linked for their descriptors: what is linked may be forwarded.
	_ "github.com/wattfold/wattfold/proto/gen/wattfold/fleet/v1"
	_ "github.com/wattfold/wattfold/proto/gen/wattfold/grid/v1"
	_ "github.com/wattfold/wattfold/proto/gen/wattfold/ledger/v1"
	_ "github.com/wattfold/wattfold/proto/gen/wattfold/telemetry/v1"
)

// Method is a call that may be forwarded.
type Method struct {
	// Service is its full name, such as wattfold.grid.v1.GridService.
	Service string
	// Name within the service.
	Name string
	// ClientStreams and ServerStreams tell which sides send many messages.
	ClientStreams, ServerStreams bool
	// Scope is the name of what a caller must hold, such as SCOPE_GRID_READ; ""
	// is a defect of the proto.
	Scope string
}

// FullName is how the call is named on the wire: /service/method.
func (m Method) FullName() string { return "/" + m.Service + "/" + m.Name }

// Methods returns every method of every service in packages wattfold.* that is
// linked into this program, and an error that names those without a scope.
func Methods() ([]Method, error) {
	var methods []Method
	var bare []string
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(file.Package()), "wattfold.") {
			return true
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := describe(service.Methods().Get(j))
				if method.Scope == "" {
					bare = append(bare, method.FullName())
				}
				methods = append(methods, method)
			}
		}
		return true
	})
	if len(bare) > 0 {
		return methods, fmt.Errorf("methods without the option wattfold.access.v1.required_scope: %s", strings.Join(bare, ", "))
	}
	return methods, nil
}

func describe(m protoreflect.MethodDescriptor) Method {
	out := Method{
		Service:       string(m.Parent().FullName()),
		Name:          string(m.Name()),
		ClientStreams: m.IsStreamingClient(),
		ServerStreams: m.IsStreamingServer(),
	}
	options, _ := m.Options().(*descriptorpb.MethodOptions)
	if scope, ok := proto.GetExtension(options, accessv1.E_RequiredScope).(accessv1.Scope); ok &&
		scope != accessv1.Scope_SCOPE_UNSPECIFIED {
		out.Scope = scope.String()
	}
	return out
}
