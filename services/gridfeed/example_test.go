package gridfeed_test

import (
	"fmt"

	"github.com/wattfold/wattfold/services/gridfeed"
)

// A listener that follows a zone subscribes to one subject, or to all of them with
// wattfold.grid.>.
func ExampleSubject() {
	fmt.Println(gridfeed.Subject("US-CAL-CISO", "CARBON_AVERAGE_LIFECYCLE"))
	// Output: wattfold.grid.US-CAL-CISO.CARBON_AVERAGE_LIFECYCLE
}
