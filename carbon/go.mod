module github.com/wattfold/wattfold/carbon

go 1.26.0
