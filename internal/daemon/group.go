package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
)

// Group runs all functions and returns when all have returned. The first error
// cancels the context of the others and is the result; a panic is an error. A
// function that returns nil has done its work, and the others go on.
//
// The end of ctx itself is no error: a function that only says that its context
// ended has stopped as it was asked to.
func Group(ctx context.Context, fns ...func(context.Context) error) error {
	group, inner := errgroup.WithContext(ctx)
	for _, fn := range fns {
		group.Go(func() (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			err = fn(inner)
			if err != nil && ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}
