package rpc

import "github.com/wattfold/wattfold/internal/fault"

// PageSize applies the default and the bounds of a page of a list.
func PageSize(asked int32, standard, most int) (int, error) {
	switch {
	case asked < 0 || int(asked) > most:
		return 0, fault.Fields(fault.Fieldf("page_size", "%d; want 0 to %d", asked, most))
	case asked == 0:
		return standard, nil
	default:
		return int(asked), nil
	}
}
