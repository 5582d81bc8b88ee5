FIGURE = 'miou'
