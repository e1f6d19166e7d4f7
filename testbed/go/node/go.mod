module fairlane/node

go 1.26
